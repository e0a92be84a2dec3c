# SSD R18 on bccd: a student of the benchmark.
_base_ = ['./models/ssd_r18.py', './bccd_student.py']
