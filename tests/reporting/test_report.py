"""The report: one file, nothing outside it, every text escaped, any run."""

import base64
import html.parser
import io
import wave

import numpy as np
import pytest
from PIL import Image

from mmtl_jax.core.overlays import Boxes
from mmtl_jax.reporting import Evaluation, Sample, Scene, update_report, write_report
from mmtl_jax.reporting.page import picture, tag
from mmtl_jax.reporting.resources import duration, resources_section
from tests.reporting import runs

VOID = {'meta', 'img', 'wbr', 'br'}


class Page(html.parser.HTMLParser):
    """Collects tags and texts, and checks that what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        """Notes an element."""
        self.tags.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        """Notes an element that closes itself."""
        self.tags.append((name, dict(attributes)))

    def handle_endtag(self, name):
        """Checks what is closed."""
        assert self.open.pop() == name

    def handle_data(self, text):
        """Notes a text."""
        self.texts.append(text)

    def all(self, name):
        """Returns the attributes of all elements of a kind."""
        return [attributes for found, attributes in self.tags if found == name]


def written(path, **changes):
    write_report(path / 'report.html', **{**runs.run(), **changes})
    return (path / 'report.html').read_text(encoding='utf-8')


@pytest.fixture(name='text', scope='module')
def _text(tmp_path_factory):
    return written(tmp_path_factory.mktemp('report'), title='stamps <1>')


@pytest.fixture(name='page', scope='module')
def _page(text):
    return Page(text)


def test_the_page_needs_nothing_outside_itself(text, page):
    assert 'http' not in text
    assert not page.all('script')
    assert not page.all('link')
    for _, attributes in page.tags:
        for name in ('src', 'href', 'xlink:href'):
            assert attributes.get(name, '#').startswith(('#', 'data:'))
        assert not any(name.startswith('on') for name in attributes)


def test_every_reference_has_its_target_and_every_id_is_used_once(text, page):
    ids = [attributes['id'] for _, attributes in page.tags if 'id' in attributes]
    assert len(ids) == len(set(ids))
    targets = [a[name] for _, a in page.tags for name in ('href', 'xlink:href') if name in a]
    assert {target[1:] for target in targets if target.startswith('#')} <= set(ids)


def test_texts_are_escaped(text, page):
    assert '<script' not in text
    assert page.texts.count(runs.HOSTILE) >= 3
    assert 'stamps <1>' in page.texts
    assert any('co$t & <b>' in words for words in page.texts)


def test_the_colours_of_the_figures_are_the_page_s(text):
    for name in ('hue-0', 'hue-1', 'ink', 'grid', 'axis', 'muted'):
        assert f'var(--{name})' in text
        assert text.count(f'--{name}:#') == 2, 'one for light, one for dark'
    assert 'prefers-color-scheme:dark' in text


def test_headlines_are_the_primary_metrics_on_test(page):
    words = ' '.join(' '.join(page.texts).split())
    assert 'category 0.587 ↑ accuracy, test validation 0.600' in words
    assert 'transcript 0.400 ↓ cer, test validation 0.400' in words
    assert 'step 60 · best step 40' in words


def test_every_metric_of_every_split_is_in_the_table(text):
    for name in ('category/accuracy', 'category/macro_f1', 'category/auc', 'transcript/cer'):
        assert name.replace('/', '/<wbr>').replace('_', '_<wbr>') in text


def test_curves_confusions_samples_resources_and_setup_are_there(page):
    words = ' '.join(page.texts)
    for part in ('Losses', 'Primary metrics', 'Balancing', 'Further metrics (1)', 'The run (3)', 'task weights'):
        assert part in words
    for part in ('category, test', 'животные → τροφή 2', 'co$t & <b> →  3'):
        assert part in words
    for part in (
        '✗ ',
        'expected: животные',
        '(nothing)',
        'rank 3',
        'stamp_2',
        'speech: 0.2 s, 0 to 8 kHz',
        'price',
        '1.25',
    ):
        assert part in words
    for part in ('2 x cpu', '2,000', '104.5', '3 min 20 s', '1.50 GiB', 'waiting for input 2.0 s (1%)', 'warm cache'):
        assert part in words
    assert "['bg', 'el']" in words
    assert 'data. steps. 0. name crop' in words


def test_pictures_and_sounds_are_inside(page):
    images = [Image.open(io.BytesIO(_data(image['src']))) for image in page.all('img')]
    assert [image.size for image in images if image.format == 'PNG'] == [(6, 8)] * 6
    assert len([image for image in images if image.format == 'JPEG']) == 3
    assert all(image['alt'] for image in page.all('img'))
    sounds = [_data(sound['src']) for sound in page.all('audio')]
    assert len(sounds) == 3
    with wave.open(io.BytesIO(sounds[0])) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 16000)
        heard = np.frombuffer(sound.readframes(sound.getnframes()), '<i2')
    expected = runs.sample().waveforms['speech'][0]
    np.testing.assert_allclose(heard, expected, atol=1)  # 32767 up, 32768 down: one int16 step at most


def _data(source):
    return base64.b64decode(source.split(';base64,')[1])


def test_answers_in_the_picture_are_drawn_beside_the_words(tmp_path):
    boxes = Boxes(np.array([[0.0, 0.0, 0.5, 0.5]]), ['<cow>'], np.array([0.9]))
    samples = [Sample(name, scene=Scene(np.zeros((8, 8, 3), np.uint8), {'objects': (boxes, boxes)})) for name in 'ab']
    text = written(tmp_path, history=[], evaluations={}, samples=samples)
    page = Page(text)
    assert len([one for one in page.all('article') if one['class'] == 'card scene']) == 2
    assert len(page.all('image')) == 2
    assert '<cow> 90%' in page.texts
    ids = [attributes['id'] for _, attributes in page.tags if 'id' in attributes]
    assert len(ids) == len(set(ids))


SUBSETS = {
    'test': {
        'subsets': {
            'image': {'modalities': ['image'], 'values': {'category/accuracy': 0.25, 'transcript/cer': None}},
            'image_text': {'modalities': ['image', 'text'], 'values': {'category/accuracy': 0.75}},
        },
        'shapley': {'category': {'image': 0.125, 'text': 0.0625}},
    }
}
ROBUSTNESS = {
    'test': {
        'corruptions': {
            'image:noise': {
                'levels': [0.0, 1.0],
                'values': {'category/accuracy': [0.75, 0.5]},
                'robustness': {'category/accuracy': {'relative': 0.625, 'effective': -0.0625}},
            },
            'text:swap': {
                'levels': [0.0, 1.0],
                'values': {'category/accuracy': [0.75, 0.25]},
                'robustness': {'category/accuracy': {'relative': 0.5}},
            },
        }
    }
}


def test_what_is_evaluated_later_comes_into_the_report(tmp_path):
    before = written(tmp_path)
    summary = {'test': {'category/accuracy': 0.875}}
    later = {'primaries': runs.PRIMARIES, 'summary': summary, 'subsets': SUBSETS, 'robustness': ROBUSTNESS}
    assert update_report(tmp_path / 'report.html', **later)
    text = (tmp_path / 'report.html').read_text(encoding='utf-8')
    page = Page(text)
    names = ['results', 'curves', 'confusion', 'subsets', 'robustness', 'samples', 'resources', 'setup']
    assert [attributes['id'] for attributes in page.all('section')] == names
    assert [attributes['href'] for attributes in page.all('a')] == [f'#{name}' for name in names]
    words = ' '.join(' '.join(page.texts).split())
    assert '0.875 ↑ accuracy, test' in words
    for shown in ('0.250', '+0.125', 'image:noise 0.500', 'image:noise · category/accuracy 0.625 -0.062'):
        assert shown in words
    # What was there before is there to the byte, but for what is new.
    for start, end in (('id="curves"', 'id="subsets"'), ('id="samples"', '</html>')):
        assert text[text.index(start) : text.index(end)].split('<section')[0] in before
    ids = [attributes['id'] for _, attributes in page.tags if 'id' in attributes]
    assert len(ids) == len(set(ids))
    whole = written(tmp_path, subsets=SUBSETS, robustness=ROBUSTNESS)
    assert text[text.index('id="subsets"') : text.index('id="setup"')] in whole
    assert update_report(tmp_path / 'report.html', **{**later, 'subsets': {}, 'robustness': {}})
    assert 'id="subsets"' not in (tmp_path / 'report.html').read_text(encoding='utf-8')


def test_only_a_report_is_updated(tmp_path):
    later = {'primaries': {}, 'summary': {}, 'subsets': {}, 'robustness': {}}
    assert not update_report(tmp_path / 'report.html', **later)
    (tmp_path / 'report.html').write_text('mine')
    assert not update_report(tmp_path / 'report.html', **later)
    assert (tmp_path / 'report.html').read_text() == 'mine'


def test_only_the_first_samples_have_sound(tmp_path):
    page = Page(written(tmp_path, history=[], evaluations={}, samples=[runs.sample(str(i)) for i in range(10)]))
    assert len(page.all('audio')) == 8
    assert len(page.all('article')) == 10


@pytest.mark.parametrize('keep', [(), ('config',), ('summary',), ('samples',), ('resources',)])
def test_a_run_that_ended_early_has_a_report(tmp_path, keep):
    full = runs.run()
    empty = {
        'config': {},
        'environment': {},
        'history': [],
        'summary': {},
        'evaluations': {},
        'samples': [],
        'resources': {},
    }
    kept = {name: full[name] for name in keep}
    page = Page(written(tmp_path, **{**empty, **kept}))
    assert len(page.all('section')) == len(keep)


def test_values_that_are_not_finite_are_left_out(tmp_path):
    history = [{'step': 1, 'split': 'train', 'seconds': 1.0, 'category/loss': float('nan')}]
    summary = {'step': 1, 'best_step': None, 'validation': {'category/accuracy': None, 'transcript/cer': float('nan')}}
    page = Page(written(tmp_path, history=history, summary=summary, evaluations={}, samples=[]))
    assert not page.all('svg')
    assert 'not finite' not in ' '.join(page.texts)


def test_a_lone_surrogate_and_control_characters_can_be_written(tmp_path):
    sample = Sample('odd\x00\ud800', texts={'caption': '\x1b[31mred\u202e'})
    text = written(tmp_path, history=[], evaluations={}, samples=[sample])
    assert '\x00' not in text
    assert '\x1b' not in text


def test_a_wrong_image_is_named(tmp_path):
    with pytest.raises(ValueError, match=r'an image is uint8 .*got float32 of the shape \(8, 8, 3\)'):
        written(
            tmp_path, history=[], evaluations={}, samples=[Sample('x', images={'i': np.zeros((8, 8, 3), np.float32)})]
        )
    assert not (tmp_path / 'report.html').exists()


def test_large_pictures_are_scaled_and_one_channel_is_enough():
    image = picture(np.zeros((600, 300, 1), np.uint8), 'a "wide" one')
    assert 'alt="a &quot;wide&quot; one"' in image
    assert Image.open(io.BytesIO(_data(image.split('"')[1]))).size == (128, 256)


def test_tags_escape_what_is_no_markup():
    assert tag('p', '<&>', None, [tag('b', 1), 'x'], class_='a"b', hidden=True, title=None) == (
        '<p class="a&quot;b" hidden>&lt;&amp;&gt;<b>1</b>x</p>'
    )


def test_a_perfect_confusion_matrix_says_so(tmp_path):
    evaluations = {'test': {'category': Evaluation(confusion=np.eye(3, dtype=int))}}
    assert 'Nothing is confused.' in written(tmp_path, history=[], samples=[], evaluations=evaluations)


@pytest.mark.parametrize(('seconds', 'text'), [(8.25, '8.2 s'), (185, '3 min 5 s'), (7440, '2 h 4 min')])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_resources_may_be_partly_known():
    assert resources_section({}) == []
    assert '12,345' in resources_section({'parameters': 12345})[0]
    assert 'training 3 min 20 s (100%)' in resources_section({'seconds': {'total': 200.0}})[0]
    assert 'cache.hits' in resources_section({'cache': {'hits': 3}})[0]
    numbers, why = resources_section({'bad_examples': {'skipped': 1200, 'why': ["example '<7>': no area"]}})
    assert '<td>1,200</td>' in numbers
    assert 'example &#x27;&lt;7&gt;&#x27;: no area' in why
