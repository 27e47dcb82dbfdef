"""Export of a fitted classifier: one ONNX file, a web page that runs it, or the class weights as a table.

onnx_file.py   writing the file             graph.py   image tower with prompts, class weights
agreement.py   agreement with torch         int8.py    8-bit matrices
rounding.py    bf16 and 8 bits by OpenVINO  runtime.py alias of `OnnxClassifier`
weights.py     class weights only           web.py     the page, with page/

`daptune.predict.onnx` runs the file without torch.
"""
