# RetinaNet on a narrow R18 on bccd, trained for as long as the teacher: a student of the benchmark for a CPU.
_base_ = ['./models/retina_r18_narrow.py', './bccd_teacher.py']
