# SSD R50 on bccd: a teacher of the benchmark.
_base_ = ['./models/ssd_r50.py', './bccd_teacher.py']
