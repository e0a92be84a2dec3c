"""Tables, curves and picture sheets from made-up figures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kd_det.visualization import markdown_table, match_boxes, picture_sheet, plot_learning_curves, text_table


def test_text_table_is_aligned():
    lines = text_table(['name', 'mAP'], [['teacher', '51.0'], ['x', '3']]).splitlines()
    assert lines == ['name      mAP', '-------  ----', 'teacher  51.0', 'x           3']


def test_markdown_table_reads_back():
    lines = markdown_table(['name', 'mAP', 'AP50'], [['a|b', '1', '2']]).splitlines()
    assert lines == ['| name | mAP | AP50 |', '|---|---:|---:|', r'| a\|b | 1 | 2 |']


@pytest.mark.parametrize('table', [text_table, markdown_table])
def test_short_row_is_refused(table):
    with pytest.raises(ValueError, match='1 cells, the header has 2'):
        table(['a', 'b'], [['1']])


def curve(top: float) -> dict:
    return dict(val_epoch=[2, 4], mAP=[top / 2, top], epoch=[1, 2, 3, 4], loss=[3.0, 2.0, 1.5, 1.2])


def test_curves_are_drawn(tmp_path):
    few = plot_learning_curves({'teacher': [curve(0.5)]}, tmp_path / 'new' / 'few.png')
    more = plot_learning_curves(
        {'teacher': [curve(0.5)], 'x': [curve(0.3), curve(0.4)]}, tmp_path / 'more.png', 'title'
    )
    few, more = cv2.imread(str(few)), cv2.imread(str(more))
    assert few.shape == more.shape and few.shape[0] > 300 and (few != more).mean() > 0.005


def test_curves_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match='no curves'):
        plot_learning_curves({'x': []}, tmp_path / 'a.png')
    with pytest.raises(ValueError, match='differ in val_epoch'):
        plot_learning_curves({'x': [curve(0.5), {**curve(0.5), 'val_epoch': [2, 5]}]}, tmp_path / 'a.png')


def test_matching_counts_each_truth_once():
    truth = np.array([[0, 0, 10, 10], [20, 20, 40, 40]])
    boxes = np.array([[0, 0, 10, 9], [1, 0, 10, 10], [20, 20, 40, 40], [20, 20, 29, 40], [20, 20, 40, 40.0]])
    hit = match_boxes(boxes, np.array([0, 0, 1, 1, 0]), truth, np.array([0, 1]))
    assert hit.tolist() == [True, False, True, False, False]
    assert match_boxes(np.zeros((0, 4)), np.zeros(0), truth, np.array([0, 1])).tolist() == []
    assert match_boxes(boxes, np.zeros(5), np.zeros((0, 4)), np.zeros(0)).tolist() == [False] * 5


def test_sheet_shows_what_is_found(tmp_path):
    images = [np.full((80, 80, 3), 128, np.uint8)] * 2
    truth = [
        dict(boxes=np.array([[10, 10, 50, 50]]), labels=np.array([1])),
        dict(boxes=np.zeros((0, 4)), labels=np.zeros(0, dtype=int)),
    ]
    nothing = dict(boxes=np.zeros((0, 4)), labels=np.zeros(0, dtype=int), scores=np.zeros(0))
    found = dict(
        boxes=np.array([[12.0, 10, 50, 49], [0, 0, 9, 9], [10, 10, 50, 50]]),
        labels=np.array([1, 0, 0]),
        scores=np.array([0.9, 0.1, 0.8]),
    )
    colours = [(255, 0, 0), (0, 0, 255)]

    def draw(column, name):
        path = picture_sheet(images, truth, {'student': column}, ('a', 'b'), colours, tmp_path / f'{name}.png')
        return cv2.imread(str(path)).astype(int)[..., ::-1]

    empty, full = draw([nothing, nothing], 'empty'), draw([found, nothing], 'full')
    assert empty.shape == full.shape
    changed = (empty != full).any(axis=2)
    ys, xs = np.nonzero(changed)
    height, width = changed.shape
    assert changed.any() and xs.min() > width / 2 and ys.max() < height * 0.55  # second column, first row
    blue = (full[..., 2] > 200) & (full[..., 0] < 60) & changed
    red = (full[..., 0] > 200) & (full[..., 2] < 60) & changed
    assert blue.sum() > 300 and not red.any()  # left out: the box of score 0.1, and the second best of one spot


def test_sheet_with_a_short_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match="column 'student' has 0 images"):
        image, truth = np.zeros((8, 8, 3), np.uint8), dict(boxes=np.zeros((0, 4)), labels=np.zeros(0, dtype=int))
        picture_sheet([image], [truth], {'student': []}, ('a',), [(0, 0, 0)], tmp_path / 'a.png')
