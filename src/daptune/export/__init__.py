"""A fitted classifier for other programs: one ONNX file, or the class weights as a table.

    onnx_file.py   the file: image tower with prompts, class weights, temperature      precision.py   fp16 and int8
    agreement.py   how well the file agrees with torch, measured                        weights.py     class weights alone
    metadata.py    what the file says of itself                                         runtime.py     running it, without torch
"""
