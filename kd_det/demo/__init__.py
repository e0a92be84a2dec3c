"""The demo: teacher, plain student and distilled students on the synthetic set, measured side by side."""

from kd_det.demo.run import DemoSettings, run_demo

__all__ = ['DemoSettings', 'run_demo']
