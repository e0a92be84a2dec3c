# RetinaNet R18 on bccd: a student of the benchmark.
_base_ = ['./models/retina_r18.py', './bccd_student.py']
