"""Configs for tests."""
