"""Boards, link, build and flash: to come."""
