# SSD with mapped levels on a narrow R18 on bccd, trained for as long as the teacher: a student of the benchmark for a CPU.
_base_ = ['./models/ssd_mapped_r18_narrow.py', './bccd_teacher.py']
