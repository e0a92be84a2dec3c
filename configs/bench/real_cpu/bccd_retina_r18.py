# RetinaNet R18 on bccd: a teacher of the benchmark for a CPU, and a student of Faster R-CNN.
_base_ = ['./models/retina_r18.py', './bccd_teacher.py']
