"""The forms that ask for something; plain buttons carry only a CSRF token."""

from __future__ import annotations

from flask_wtf import FlaskForm
from wtforms import PasswordField
from wtforms import StringField
from wtforms.validators import InputRequired
from wtforms.validators import Length
from wtforms.validators import Regexp

NAME = [
    InputRequired("Your character needs a name."),
    Length(3, 20, "A name has 3 to 20 characters."),
    Regexp(r"^[A-Za-z0-9]+\Z", message="A name is made of the letters A-Z and digits."),
]
PASSWORD = [
    InputRequired("Choose a password."),
    Length(8, 200, "A password has at least 8 characters."),
]


class JoinForm(FlaskForm):  # type: ignore[misc]
    name = StringField(
        "Character name",
        NAME,
        description="3 to 20 letters and digits. Everyone sees it.",
        render_kw={"autocomplete": "username", "autocapitalize": "words"},
    )
    password = PasswordField(
        "Password",
        PASSWORD,
        description="At least 8 characters.",
        render_kw={"autocomplete": "new-password"},
    )


class DeleteForm(FlaskForm):  # type: ignore[misc]
    password = PasswordField(
        "Password",
        [InputRequired("Enter your password.")],
        render_kw={"autocomplete": "current-password"},
    )


class LoginForm(FlaskForm):  # type: ignore[misc]
    name = StringField(
        "Character name",
        [InputRequired("Which character is yours?")],
        render_kw={"autocomplete": "username"},
    )
    password = PasswordField(
        "Password",
        [InputRequired("Enter your password.")],
        render_kw={"autocomplete": "current-password"},
    )
