# FCOS R18 on bccd: a teacher of the benchmark for a CPU.
_base_ = ['./models/fcos_r18.py', './bccd_teacher.py']
