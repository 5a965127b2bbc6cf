"""The table of docs/balancing.md says of each method what it declares."""

import pathlib
import re

from tests.balancing.test_common import FAMILY, run

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'balancing.md'
ROW = re.compile(r'^\| `(\w+)` \| (losses|gramian|gradients) \| (own|weighted) \|', re.MULTILINE)
WORDS = {'losses': 'losses', 'gramian': 'gramian', 'jacobian': 'gradients'}


def test_needs_and_heads():
    text = PAGE.read_text(encoding='utf-8')
    rows = {name: (needs, heads) for name, needs, heads in ROW.findall(text)}
    # What wraps or makes balancers stands in a table, or a text, of its own.
    others = {'ema', 'every', 'per_group', 'clip_norm', 'from_weighting'}
    assert rows == {
        name: (WORDS[run(name).balancer.needs], run(name).balancer.heads) for name in FAMILY if name not in others
    }
