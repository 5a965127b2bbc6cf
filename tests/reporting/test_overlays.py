"""Pictures with boxes, masks, points and values over them: what is drawn where, and how the two sides differ."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmtl_jax.core.overlays import Boxes, Mask, Points, Values
from mmtl_jax.reporting import Scene, draw_picture, draw_values, scene_sheet
from mmtl_jax.reporting.overlays import PREDICTED, as_rgb, bounds_of, class_colour, tinted
from mmtl_jax.reporting.style import to_png, to_svg

GREY = np.full((20, 40, 3), 128, np.uint8)
BOX = np.array([[0.25, 0.5, 0.75, 1.0]])
FOUND, TRUE = Boxes(BOX, ['a$b'], np.array([0.87])), Boxes(BOX, ['cat'])
CLASSES = np.zeros((10, 20), int)
CLASSES[2:8, 4:10] = 1
CLASSES[:, 15:] = -1
MASK = Mask(CLASSES, ('background', 'thing'))
POINTS = Points(np.array([[0.5, 0.25], [np.nan, np.nan]]), ('nose', 'tail'))


def drawn(image=GREY, **options):
    axes = Figure().subplots()
    draw_picture(axes, image, **options)
    return axes


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []


def test_boxes_stand_where_their_shares_say_and_differ_in_their_lines():
    axes = drawn(predicted=[FOUND], expected=[TRUE], title='$x')
    true, found = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    for frame in (true, found):
        # A pixel has its middle at a whole number.
        assert frame.get_bbox().extents == pytest.approx([19.5, 4.5, 39.5, 14.5])
    assert found.get_linestyle() == '-'
    assert true.get_linestyle() != '-'
    assert [text.get_text() for text in axes.texts] == ['cat', 'a$b 87%']
    below, above = (text.get_position()[1] for text in axes.texts)
    assert below > above
    assert legend_of(axes) == ['predicted', 'expected']
    assert axes.get_title(loc='left') == '$x'


def test_a_mask_tints_its_classes_and_stripes_what_is_unknown():
    pixels = tinted(as_rgb(GREY), MASK)
    assert pixels.shape == (20, 40, 3)
    np.testing.assert_allclose(pixels[0, 0], 128 / 255, rtol=1e-6, err_msg='the background stays')
    assert (pixels[4:16, 8:20] == pixels[4, 8]).all()
    assert np.ptp(pixels[4, 8]) > 0.1
    unknown = pixels[:, 30:]
    assert np.unique(unknown).tolist() == pytest.approx([128 / 255, 0.75])
    assert legend_of(drawn(predicted=[MASK])) == ['thing']
    assert legend_of(drawn(predicted=[Mask(CLASSES)])) == ['class 0', 'class 1']


def test_a_true_mask_is_outlined_where_another_tints():
    axes = drawn(predicted=[MASK], expected=[Mask(CLASSES == 0)])
    solid, *dashed = axes.collections
    assert solid.get_linestyle()[0][1] is None
    assert [lines.get_linestyle()[0][1] is None for lines in dashed] == [False, False], 'each class has an outline'
    assert legend_of(axes) == ['thing', 'expected']
    assert len(drawn(expected=[MASK]).collections) == 1


def test_many_classes_have_colours_of_their_own_and_a_short_legend():
    assert len({class_colour(label) for label in range(24)}) == 24
    many = legend_of(drawn(predicted=[Mask(np.arange(240).reshape(12, 20) % 12)]))
    assert len(many) == 9
    assert many[-1] == 'and 4 more'


def test_points_are_joined_and_named_once():
    axes = drawn(predicted=[Points(POINTS.places + 0.1)], expected=[POINTS])
    assert [text.get_text() for text in axes.texts] == ['nose']
    joint = axes.lines[0].get_xydata()
    np.testing.assert_allclose(joint, [[0.35 * 40 - 0.5, 0.6 * 20 - 0.5], [0.25 * 40 - 0.5, 0.5 * 20 - 0.5]])
    assert {line.get_marker() for line in axes.lines} == {'None', 'o', 'x'}
    assert PREDICTED in {line.get_color() for line in axes.lines}


def test_values_share_their_bounds_and_leave_out_what_is_unknown():
    depth = Values(np.array([[1.0, 3.0], [np.nan, 2.0]]))
    assert bounds_of([depth, Values(np.array([[[0.5, 9.0]]]))]) == (0.5, 3.0)
    assert bounds_of([Values(np.full((2, 2), np.nan))]) == (0.0, 1.0)
    axes = Figure().subplots()
    draw_values(axes, depth)
    pixels = axes.images[0].get_array()
    assert pixels[0, 1].sum() > pixels[1, 1].sum() > pixels[0, 0].sum()
    assert pixels[1, 0].tolist() in ([0.75] * 3, [0.95] * 3)
    assert [text.get_text() for text in axes.texts] == ['1 (dark) to 3 (bright)']
    draw_values(axes, Values(np.array([[[1.0, 0.0, -1.0]]]), normals=True))
    assert axes.images[1].get_array()[0, 0].tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    'image', [GREY, GREY[..., :1], GREY[..., 0], np.full((20, 40), 128 / 255, np.float32)], ids=str
)
def test_pictures_of_every_form_are_alike(image):
    np.testing.assert_allclose(as_rgb(image), np.full((20, 40, 3), 128 / 255), rtol=1e-6)


@pytest.mark.parametrize(
    ('image', 'overlay', 'message'),
    [
        (GREY.astype(int), MASK, r'a picture is .* got int64 of the shape \(20, 40, 3\)'),
        (np.zeros((4, 4, 2), np.uint8), MASK, r'got uint8 of the shape \(4, 4, 2\)'),
        (GREY, Boxes(BOX, []), r'Boxes over a picture have the shape \[0, 4\] for 0 names, got \(1, 4\)'),
        (GREY, Mask(np.zeros(3)), r'Mask over a picture .* \[h, w\], got \(3,\)'),
        (GREY, Points(np.zeros((2, 2)), ('one',)), r'Points over a picture .* \[1, 2\], got \(2, 2\)'),
        (GREY, 'a box', r"expected Boxes, a Mask, Values or Points of core.overlays, got 'a box'"),
    ],
)
def test_what_cannot_be_drawn_is_named(image, overlay, message):
    with pytest.raises(ValueError, match=message):
        drawn(image, predicted=[overlay])


def test_wrong_values_are_named():
    for values, message in (
        (Values(np.zeros((2, 2)), normals=True), r'\[h, w, 3\], got \(2, 2\)'),
        (Values(np.zeros(3)), r'\[h, w\] or \[h, w, C\], got \(3,\)'),
    ):
        with pytest.raises(ValueError, match=message):
            draw_values(Figure().subplots(), values)


def test_a_sheet_has_a_row_for_each_scene_and_truth_beside_what_is_predicted():
    depth = Values(np.arange(200.0).reshape(10, 20))
    answers = {'objects': (FOUND, TRUE), 'ground': (MASK, MASK), 'depth': (depth, depth), 'ends': (POINTS, POINTS)}
    scenes = [Scene(np.zeros((800, 400, 3), np.uint8), answers, 'first'), Scene(GREY, {'ends': (POINTS, POINTS)})]
    figure = scene_sheet(scenes)
    titles = [axes.get_title(loc='left') for axes in figure.axes]
    assert titles[:3] == ['first: objects', 'ground, predicted', 'ground, expected']
    assert titles[3:] == ['depth, predicted', 'depth, expected', 'ends', 'ends']
    assert figure.axes[0].images[0].get_array().shape == (384, 192, 3), 'a large picture is made smaller'
    assert to_png(figure, dpi=40)
    assert '<image' in to_svg(figure, 'scene')
    places = [(axes.get_subplotspec().rowspan.start, axes.get_subplotspec().colspan.start) for axes in figure.axes]
    assert places == [*((0, column) for column in range(6)), (1, 0)]
    with pytest.raises(ValueError, match='at least one scene with an answer'):
        scene_sheet([Scene(GREY, {})])


def test_scenes_of_one_panel_stand_side_by_side():
    figure = scene_sheet([Scene(GREY, {'objects': (FOUND, TRUE)})] * 5)
    places = [(axes.get_subplotspec().rowspan.start, axes.get_subplotspec().colspan.start) for axes in figure.axes]
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
