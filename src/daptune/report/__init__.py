"""Reports: one HTML file that needs no network, with its figures as SVG and its tables as CSV and LaTeX beside it.

results.py   what `daptune bench` wrote -> results             compare.py   means, differences, significance
bench.py     the page of bench runs, from its sections          fit.py       the page of one `daptune fit`
curves.py, charts.py, fit_charts.py, embedding.py               figures, drawn by matplotlib
mislabelled.py, thumbnails.py                                   what a fit is searched for
table.py, svg.py, html.py, page.py                              how a table, a figure, a tag and a page are written
"""
