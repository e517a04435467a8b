"""The neural methods of DeepLoc's Table 3 as localizers. Importing this needs no torch; learning and locating do."""

from __future__ import annotations

from .recursive import DeepLoc, RecuLstm
from .sequences import ConvLstm, Lstm, Seq2Seq, StackLstm
from .single import Cnn

__all__ = ["Cnn", "ConvLstm", "DeepLoc", "Lstm", "RecuLstm", "Seq2Seq", "StackLstm"]
