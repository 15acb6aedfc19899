"""
The programs that figures start: hosts that run until their stdin closes, and submitters that end.

Each imports what a user's program of its kind would import, and no more: that is a part of what is measured.
"""
