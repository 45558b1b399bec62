"""Qinling: functions as a service for OpenStack."""
