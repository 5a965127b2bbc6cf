"""Scores of a whole split, on the host: what is no mean over rows. Numpy in, plain floats out.

A score that the data leave undefined, such as the area under the curve of a label that never occurs, is left out.
"""

import numpy as np
from sklearn import metrics as sklearn_metrics


def f1(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns `macro_f1` and `micro_f1` of classes `[N]` or of labels `[N, K]` of 0 and 1.

    As in scikit-learn, the macro mean is over the classes that occur in the targets or in the predictions.
    """
    if len(targets) == 0:
        return {}
    return {
        f'{average}_f1': float(sklearn_metrics.f1_score(targets, predicted, average=average, zero_division=0))
        for average in ('macro', 'micro')
    }


def confusion_matrix(targets: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns `[num_classes, num_classes]` counts; the row is the true class, the column the predicted one."""
    return sklearn_metrics.confusion_matrix(targets, predicted, labels=np.arange(num_classes))


def ranking(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Returns `roc_auc` and `average_precision`, each the mean over the labels where it is defined: `[N, K]`, `[N, K]`.

    A label needs a positive row, for `roc_auc` a negative one too.
    """
    targets = np.asarray(targets) > 0.5
    positive, negative = targets.any(axis=0), (~targets).any(axis=0)
    columns = {'roc_auc': np.flatnonzero(positive & negative), 'average_precision': np.flatnonzero(positive)}
    score = {'roc_auc': sklearn_metrics.roc_auc_score, 'average_precision': sklearn_metrics.average_precision_score}
    return {
        name: float(np.mean([score[name](targets[:, k], probabilities[:, k]) for k in where]))
        for name, where in columns.items()
        if len(where)
    }


def r2(targets: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Returns `r2`, the mean over the outputs of the coefficient of determination: `[N, K]`, `[N, K]`, N at least 2."""
    return {'r2': float(sklearn_metrics.r2_score(targets, values))} if len(targets) > 1 else {}
