"""A fitted classifier for other programs: one ONNX file, or the class weights as a table.

onnx_file.py   the file, written                       graph.py      image tower with prompts, class weights
agreement.py   how well it agrees with torch           precision.py  int8
metadata.py    what it says of itself                  runtime.py    running it, without torch
weights.py     class weights alone
"""
