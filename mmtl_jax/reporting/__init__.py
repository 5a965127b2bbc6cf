"""Floor 4: a run's data becomes figures and a page; pure functions, no training, no display, no JavaScript."""

from mmtl_jax.reporting.attention import Attended, attention_figure
from mmtl_jax.reporting.calibration import reliability_diagrams
from mmtl_jax.reporting.curves import loss_curves, metric_curves, throughput, value_curve, weight_curves
from mmtl_jax.reporting.features import FeatureMap, embed, feature_map
from mmtl_jax.reporting.figures import write_figure, write_figures
from mmtl_jax.reporting.gradients import conflict_curve, conflict_heat_map, gradient_norm_curves
from mmtl_jax.reporting.modalities import modality_curves
from mmtl_jax.reporting.overlays import draw_picture, draw_values
from mmtl_jax.reporting.pictures import confusion, contact_sheet, spectrogram
from mmtl_jax.reporting.report import update_report, write_report
from mmtl_jax.reporting.robustness import primary_curves, robustness_curves
from mmtl_jax.reporting.samples import Answer, Evaluation, Sample, confusion_matrix
from mmtl_jax.reporting.scenes import Scene, scene_sheet
from mmtl_jax.reporting.subsets import shapley_bars, subset_table

__all__ = [
    'Answer',
    'Attended',
    'Evaluation',
    'FeatureMap',
    'Sample',
    'Scene',
    'attention_figure',
    'conflict_curve',
    'conflict_heat_map',
    'confusion',
    'confusion_matrix',
    'contact_sheet',
    'draw_picture',
    'draw_values',
    'embed',
    'feature_map',
    'gradient_norm_curves',
    'loss_curves',
    'metric_curves',
    'modality_curves',
    'primary_curves',
    'reliability_diagrams',
    'robustness_curves',
    'scene_sheet',
    'shapley_bars',
    'spectrogram',
    'subset_table',
    'throughput',
    'update_report',
    'value_curve',
    'weight_curves',
    'write_figure',
    'write_figures',
    'write_report',
]
