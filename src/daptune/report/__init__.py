"""Reports: one self-contained HTML file, and a folder with its figures as SVG and its tables as CSV and LaTeX.

runs.py      folders of `daptune bench` -> their results        board.py    means, differences, significance
bench_page.py the page of bench runs                            fit.py      the page of one `daptune fit`
bench_charts.py, fit_charts.py, embedding.py                    figures, drawn by matplotlib
bench_tables.py, fit_tables.py, says.py, repeat.py              tables, and findings in sentences
fit_labels.py, thumbnails.py                                    labels to check, images in the page
table.py, svg.py, html.py, page.py                              writing tables, figures, tags and pages
style.toml                                                      colours and matplotlib settings
"""
