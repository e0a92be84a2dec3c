# Faster R-CNN on a narrow R18 on bccd: a student of the benchmark for a CPU.
_base_ = ['./models/faster_r18_narrow.py', './bccd_student.py']
