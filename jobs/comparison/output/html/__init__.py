"""The comparison as one HTML file: no script, no network, light and dark, and good on paper.

:mod:`.page` fills the template; :mod:`.figures` draws; :mod:`.timelines` reads the samples that only whole reports
have; :mod:`.svg` turns matplotlib's output into SVG that takes its colours and font from the page.
"""
