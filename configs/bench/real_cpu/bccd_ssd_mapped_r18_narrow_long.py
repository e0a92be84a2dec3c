# SSD with mapped levels on a narrow R18 on bccd, trained as long as the teacher, for a CPU.
_base_ = ['./models/ssd_mapped_r18_narrow.py', './bccd_teacher.py']
