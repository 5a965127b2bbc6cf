"""The stamps as they stand, but for what makes them expensive: widths, depths, buckets and the length of the run."""

from ml_collections import ConfigDict

from configs import stamps

SMALL_ENCODERS = {
    'image': {'width': 16, 'stage_widths': (8, 8)},
    'caption': {'width': 16, 'embedding_width': 8},
    'speech': {'width': 16, 'depth': 1},
}


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config of the stamps with `arg`, made small."""
    config = stamps.get_config(arg).unlock()
    config.data.batch_size = config.data.eval_batch_size = 8
    if config.data.buckets is not None:
        config.data.buckets.speech = (600,)
    for name, encoder in config.encoders.items():
        encoder.update(SMALL_ENCODERS[name])
    config.fusion.width = config.sharing.width = 16
    if 'retrieval' in config.tasks:
        config.tasks.retrieval.update({'width': 8, 'hidden': (16,)})
    config.training.update({'num_steps': 2, 'log_every': 1, 'eval_every': 2})
    config.results.num_samples = 2
    return config.lock()
