"""Good names that are out of the ordinary."""

from __future__ import annotations

ODD_NAMES: dict[str, tuple[str, str]] = {
    "Hebrew": ("תמונה של חתול.jpg", "תמונה של חתול.jpg"),
    "Arabic": ("صورة قطة.jpg", "صورة قطة.jpg"),
    "emoji": ("🐈‍⬛🏳️‍🌈👩🏽‍⚕️.jpg", "🐈‍⬛🏳️‍🌈👩🏽‍⚕️.jpg"),
    "Persian": ("می\u200cروم PDF\u200cتر.jpg", "می\u200cروم PDF\u200cتر.jpg"),
    "Bengali": ("র\u200d্যাম.jpg", "র\u200d্যাম.jpg"),
    "Sinhala": ("ශ්\u200dරී.jpg", "ශ්\u200dරී.jpg"),
    "letters with their accents apart": ("Cafe\u0301.jpg", "Café.jpg"),
    "Hindi": ("बिल्ली की तस्वीर.jpg", "बिल्ली की तस्वीर.jpg"),
    "Chinese": ("窗台上的猫.jpg", "窗台上的猫.jpg"),
    "Korean, its letters apart": ("\u1100\u1169\u110b\u1163\u11bc\u110b\u1175.jpg", "고양이.jpg"),
    "Thai": ("แมวบนหน้าต่าง.jpg", "แมวบนหน้าต่าง.jpg"),
    "255 characters": ("ä" * 251 + ".jpg", "ä" * 251 + ".jpg"),
    "256 characters": ("ä" * 252 + ".jpg", "ä" * 251 + ".jpg"),
    "capitals": ("CAT.JPG", "CAT.JPG"),
    "jpeg": ("cat.jpeg", "cat.jpeg"),
    "jfif": ("cat.jfif", "cat.jfif"),
    "no extension": ("cat", "cat"),
    "two extensions": ("cat.tar.jpg", "cat.tar.jpg"),
    "an extension of nothing that is known": ("cat.backup", "cat.backup"),
    "spaces": ("  a cat  on\u00a0a sill .jpg  ", "a cat  on\u00a0a sill .jpg"),
    "a folder": ("pictures/cats/cat.jpg", "cat.jpg"),
    "punctuation": ("cat (1) [copy], #2 & 100%!.jpg", "cat (1) [copy], #2 & 100%!.jpg"),
}
"""As handed in, and as it is shown afterwards."""
