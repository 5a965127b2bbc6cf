"""A small generated data set and what is made of it, as plain values."""

NUMBERS = {'num_train': 100, 'num_validation': 22, 'num_test': 10, 'missing_rate': 0.15, 'missing_label_rate': 0.1}
STEPS = [
    {'name': 'resize', 'key': 'image', 'size': 20},
    {'name': 'log_mel', 'key': 'speech', 'out': 'mel', 'sample_rate': 8000, 'num_mels': 16},
    {'name': 'normalise_frames', 'key': 'mel'},
    {'name': 'characters', 'key': 'caption', 'out': 'caption_ids', 'vocabulary': 'caption'},
    {'name': 'characters', 'key': 'transcript', 'out': 'transcript_ids', 'vocabulary': 'transcript'},
    {'name': 'standardise', 'key': 'table', 'statistics': 'table'},
]
AUGMENT = [
    {'name': 'random_crop', 'key': 'image', 'size': 16},
    {'name': 'random_flip', 'key': 'image'},
    {'name': 'time_stretch', 'key': 'mel', 'max_length': 60},
    {'name': 'spec_augment', 'key': 'mel', 'frequency_width': 4, 'time_width': 4},
    {'name': 'token_dropout', 'key': 'caption_ids'},
]
EVAL_STEPS = [{'name': 'centre_crop', 'key': 'image', 'size': 16}]
INPUTS = {'image': 'image', 'caption': 'caption_ids', 'speech': 'mel', 'table': 'table'}
TARGETS = {
    'shape': {'key': 'shape', 'num_classes': 6},
    'transcript': {'key': 'transcript_ids', 'ragged': True, 'num_classes': 9},
    'attributes': {'key': 'attributes', 'ragged': False, 'dtype': 'float32', 'num_classes': 4},
    'amount': 'amount',
    'retrieval': {'group': 'group', 'count': {'key': 'count', 'optional': True}},
}
BUCKETS = {'speech': (15, 30, 60)}
VOCABULARIES = {
    'caption': {'kind': 'characters', 'key': 'caption', 'unknown': True},
    'transcript': {'kind': 'characters', 'key': 'transcript'},
    'table': {'kind': 'statistics', 'key': 'table'},
}
