"""The 40 languages of the chat data (report section 2.4): English and 39 others, by name, with ISO 639-1 code.

The report names seven (German, Spanish, French, Portuguese, Italian, Hindi, Japanese) and the number; the others are
ours: the most written languages that our language identification knows.
"""

LANGUAGES = {
    "English": "en", "German": "de", "Spanish": "es", "French": "fr", "Portuguese": "pt", "Italian": "it",
    "Hindi": "hi", "Japanese": "ja", "Chinese": "zh", "Korean": "ko", "Russian": "ru", "Arabic": "ar",
    "Turkish": "tr", "Dutch": "nl", "Polish": "pl", "Ukrainian": "uk", "Czech": "cs", "Swedish": "sv",
    "Danish": "da", "Norwegian": "no", "Finnish": "fi", "Hungarian": "hu", "Romanian": "ro", "Bulgarian": "bg",
    "Greek": "el", "Serbian": "sr", "Slovak": "sk", "Hebrew": "he", "Persian": "fa", "Urdu": "ur",
    "Bengali": "bn", "Tamil": "ta", "Telugu": "te", "Thai": "th", "Vietnamese": "vi", "Indonesian": "id",
    "Malay": "ms", "Swahili": "sw", "Catalan": "ca", "Estonian": "et",
}  # fmt: skip
