"""Dispatch: makes what a plan lacks in other processes, on this machine or through Slurm."""
