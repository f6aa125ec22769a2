"""The library of blocks that ships with graphc, itself written in `.nn`: `from nn.transformer import EncoderLayer`."""
