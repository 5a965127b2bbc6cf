"""Tests of the training rooms."""
