"""The tables of docs/fusion.md have every fusion, with what it takes and how many modalities it needs."""

import pathlib
import re

from mmtl_jax import fusion
from mmtl_jax.fusion.tokens import TokenFusion

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'fusion.md'
ROW = re.compile(r'^\| `(\w+)` \| (vectors|tokens) \| (\d) \|', re.MULTILINE)


def test_every_fusion_has_a_row():
    rows = ROW.findall(PAGE.read_text(encoding='utf-8'))
    assert len({name for name, _, _ in rows}) == len(rows)
    expected = {}
    for name in fusion.__all__:
        module = getattr(fusion, name)
        takes = 'tokens' if issubclass(module, TokenFusion) else 'vectors'
        expected[name] = (takes, str(getattr(module, 'least', 1)))
    assert {name: (takes, least) for name, takes, least in rows} == expected


def test_no_row_has_a_broken_cell():
    # A bar inside a formula would start a new column.
    for table in re.findall(r'(?:^\|.*\n)+', PAGE.read_text(encoding='utf-8'), re.MULTILINE):
        assert len({line.count('|') for line in table.splitlines()}) == 1, table
