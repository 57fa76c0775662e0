"""Faults around a file: killed processes, full disks, lost files, locks, forks."""
