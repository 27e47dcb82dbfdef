"""A fitted classifier for other programs: one ONNX file, or the class weights as a table.

onnx_file.py   the file, written                       graph.py   image tower with prompts, class weights
agreement.py   how well it agrees with torch           int8.py    matrices in 8 bits
weights.py     class weights alone                     runtime.py the address of `OnnxClassifier`

`daptune.predict.onnx` runs the file, without torch.
"""
