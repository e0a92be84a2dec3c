# SSD R18 on bccd: a teacher of the benchmark for a CPU.
_base_ = ['./models/ssd_r18.py', './bccd_teacher.py']
