"""Tables, learning curves, picture sheets, and texts between marks."""

from kd_det.visualization.curves import plot_learning_curves
from kd_det.visualization.marks import write_between_marks
from kd_det.visualization.sheet import match_boxes, picture_sheet
from kd_det.visualization.tables import markdown_table, text_table

__all__ = [
    'markdown_table',
    'match_boxes',
    'picture_sheet',
    'plot_learning_curves',
    'text_table',
    'write_between_marks',
]
