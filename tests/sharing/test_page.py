"""The tables of docs/sharing.md have a row for each scheme."""

import pathlib
import re

from mmtl_jax import sharing

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'sharing.md'
ROW = re.compile(r'^\| `(\w+)` \| ', re.MULTILINE)


def test_every_scheme_has_a_formula():
    table = PAGE.read_text(encoding='utf-8').split('## Schemes')[1].split('\n## ')[0]
    assert sorted(ROW.findall(table)) == sorted(sharing.__all__)
