"""What a rank reads: from a database's records to batches that are ready for the net.

In the flow prototxt → graph → net → solver → communicator → snapshot this feeds the net. Import its modules:

- loader.py, what a data layer asks: batches (batch.py), read ahead by a thread (prefetcher.py);
- batch_reader.py, what fills a batch: the interface; datum_reader.py, for databases; image_reader.py (image_list.py),
  window_reader.py (window_file.py, window_crop.py) and hdf5_reader.py (hdf5_library.py), for files;
- image_batch.py and workers.py, images in threads; picture.py, image_codec.py (jpeg_header.py), image_resize.py,
  compressed images;
- source.py, the registry of databases; record_source.py, the interface; leveldb_source.py;
  lmdb_source.py, over lmdb_environment.py; key_index.py (key_table.py), the keys of big databases in a file;
- sampler.py, which record is read when, and by which rank; epoch_order.py, the order of a shuffled epoch;
- datum.py, datum_batch.py, records on the wire; transformer.py, mean_file.py, what is done to images;
  hash64.py, random numbers as a function of (seed, epoch, record);
- convert_mnist.py (idx.py), convert_digits.py, what makes databases, by lmdb_writer.py.

Nothing here imports any other part of dtrain but the messages of dtrain.proto.
"""
