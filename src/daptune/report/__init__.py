"""Reports: one HTML file that needs no network, with its figures as SVG and its tables as CSV and LaTeX beside it.

runs.py      folders of `daptune bench` -> their results        board.py    means, differences, significance
bench_page.py the page of bench runs, from its sections          fit.py      the page of one `daptune fit`
bench_charts.py, fit_charts.py, embedding.py                    figures, drawn by matplotlib
bench_tables.py, fit_tables.py, says.py, repeat.py              tables, and what the numbers say in sentences
mislabelled.py, thumbnails.py                                   what a fit is searched for
table.py, svg.py, html.py, page.py                              how a table, a figure, a tag and a page are written
style.toml                                                      colours, and how matplotlib draws
"""
