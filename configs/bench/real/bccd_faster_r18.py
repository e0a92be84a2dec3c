# Faster R-CNN R18 on bccd: a student of the benchmark.
_base_ = ['./models/faster_r18.py', './bccd_student.py']
