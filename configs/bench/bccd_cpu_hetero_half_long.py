# Faster R-CNN R18 to a RetinaNet on photographs of blood cells, at reduced size: for a CPU. Both are on an R18 of half
# its width, so that the students are twice as wide as those of bccd_cpu_hetero_quarter_long; they train for as long as
# the teacher, and MGD is compared, too. Ten seeds, since with five the best share of the gap was 49 % +- 9 points. The
# set is expected in data/bccd (docs/real_data.md). Levels are paired by the size of the objects that they hold: the
# four finest of each.
_base_ = './bccd_cpu_hetero_quarter_long.py'
bench = dict(
    title='Faster R-CNN R18 to RetinaNet R18, equal epochs',
    student='./real_cpu/bccd_retina_r18.py',
    methods=dict(mgd_by_size=dict(fragment='mgd', change=dict(student='neck[0:4]', teacher='neck[0:4]'))),
    seeds=list(range(10)),
)
