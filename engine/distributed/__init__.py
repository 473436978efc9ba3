"""One run on several devices: ranks of a ``torch.distributed`` group that share the work of every stage.

``ranks`` tells which rank this process is and which device is its own, ``planning`` who does what, ``control`` carries
stop, pause and failures to all of them, ``group`` lets them meet, ``supervising`` starts them through
``torch.distributed.run``. All but ``group`` are torch-free. The run directory is where ranks exchange results: every
shard of a stage is a file that appears whole, so a group that was broken off, or has another size when it is resumed,
goes on with what is there.
"""
