from . import figures
from .html import Section, write_page
from .label_tables import diff_table, generations_table
from .table import Table
from .tables import markdown_table, read_csv, summarize, write_csv

__all__ = [
    "Section",
    "Table",
    "diff_table",
    "figures",
    "generations_table",
    "markdown_table",
    "read_csv",
    "summarize",
    "write_csv",
    "write_page",
]
