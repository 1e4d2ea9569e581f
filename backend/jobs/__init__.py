"""Whole projects: job table, prelabeler, Ray and worker; imports `prediction` and what that
imports."""
