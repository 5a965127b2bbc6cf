"""What a run recorded of its modalities: the figures, and that their values show up nowhere else."""

from mmtl_jax import reporting
from mmtl_jax.reporting import curves, style
from mmtl_jax.reporting.modalities import modality_figures
from tests.reporting import runs
from tests.reporting.test_report import written


def recorded():
    """Returns a history with weights at each evaluation, and coefficients and ratios at each step."""
    rows = []
    for row in runs.history():
        step, is_train = row['step'], row['split'] == 'train'
        values = {'coefficient': 1 - step / 100, 'ratio': 2.0 - step / 60} if is_train else {'weight': step / 100}
        own = {f'modalities/image/{name}': value for name, value in values.items()}
        own |= {f'modalities/text/{name}': 1 - value / 2 for name, value in values.items()}
        rows.append({**row, **own})
    return rows


def test_each_recorded_value_has_a_figure():
    figures = dict(modality_figures(recorded()))
    assert list(figures) == ['modality_weights', 'modality_coefficients', 'modality_ratios']
    for figure in figures.values():
        labels = [text.get_text().split()[0] for text in figure.axes[0].texts]
        assert labels == ['image', 'text']
        assert style.to_png(figure, dpi=40)
    weights = figures['modality_weights'].axes[0].lines[0]
    assert weights.get_ydata().tolist() == [0.2, 0.4, 0.6]
    assert list(modality_figures(runs.history())) == []
    assert style.to_png(reporting.modality_curves([], 'weight', 'validation', 'none'), dpi=40)


def test_they_are_in_figures_and_report_once(tmp_path):
    shown = {**runs.run(), 'history': recorded()}
    page = written(tmp_path, **shown)
    assert str(page).count('OGM-GE: factors') == 1
    assert not any('modalities' in panel.title for panel in curves.run_panels(shown['history'], ['category']))
