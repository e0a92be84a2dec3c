# RetinaNet on an R18 of a quarter of its width on bccd, trained for as long as the teacher: a student of the benchmark
# for a CPU.
_base_ = ['./models/retina_r18_quarter.py', './bccd_teacher.py']
