# SSD R18 with mapped levels on bccd: a teacher of the benchmark for a CPU.
_base_ = ['./models/ssd_mapped_r18.py', './bccd_teacher.py']
