"""The comparison as one HTML file: no script, no network, light and dark, printable.

:mod:`.page` fills the template, :mod:`.svg` has the parts of a drawing, and each other module makes one figure.
"""
