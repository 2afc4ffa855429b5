"""Caffe's messages: ``caffe.proto`` and the code that ``generate.sh`` makes from it.

The language of the flow's first stage (prototxt) and of its last (snapshot), and of the records that data/
reads. A leaf: it imports nothing of dtrain, and every folder may import it::

    from dtrain.proto import caffe_pb2
"""
