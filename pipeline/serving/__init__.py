"""Serve an ONNX file over HTTP by the open inference protocol (KServe's version 2), without a framework.

May import `core`. Offers `app` (the application). Inside: `protocol` (requests and answers, JSON or binary).
"""
